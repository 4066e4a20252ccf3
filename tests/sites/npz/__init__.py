"""Tests of `sites.npz`."""
