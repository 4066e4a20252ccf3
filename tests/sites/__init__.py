"""Tests of `sites`."""
