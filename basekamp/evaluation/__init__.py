"""How good a model is: metrics, scorecard, confusion matrix, ROC and predictions."""
