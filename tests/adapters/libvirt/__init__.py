"""Tests of dr.adapters.libvirt: the mock driver test:///default, fixture trees, and the hook run by a real /bin/sh."""
