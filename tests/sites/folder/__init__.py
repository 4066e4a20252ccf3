"""Tests of `sites.folder`."""
