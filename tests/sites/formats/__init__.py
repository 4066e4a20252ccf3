"""Tests of `sites.formats`."""
