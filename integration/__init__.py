"""The lab (real libvirtd, QEMU and IPMI on one machine) and the tests, demo and benchmarks that run in it."""
