"""The pipelines, as functions and compiled to the YAML that every place runs."""
