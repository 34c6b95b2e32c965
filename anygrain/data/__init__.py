"""Where data are read and written: tables, configurations, run folders. Everything joins by row id."""
