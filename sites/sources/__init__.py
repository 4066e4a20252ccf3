"""Where images come from: one file per data source, and the manifest that a folder has."""
