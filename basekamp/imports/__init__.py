"""Old results from elsewhere, on the leaderboard beside the records: marked as imported, never judged or champion."""
