"""Tests of `sites.dealing`."""
