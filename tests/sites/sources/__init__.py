"""Tests of `sites.sources`."""
