"""YAML as a person wrote it: every value with its place, so that what is wrong can be told where it stands."""
