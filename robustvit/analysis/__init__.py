"""Looking at runs and models: figures and measurements."""
