"""The health of a plain Debian host, read from /proc, /sys and the clock: what needs no libvirt.

`report.HostReport` runs all parts; every part is a small module with one function that returns readings.
Not here: libvirt, its pools and networks (../libvirt/health.py), and what a reading leads to (`dr.core`).
"""
