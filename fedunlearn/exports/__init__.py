"""What others can read of a run: tables for papers, MLflow's layout, cards for models and data."""
