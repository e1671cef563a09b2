"""dr: live migration and disaster recovery for plain libvirt/KVM hosts.

Here: the version, and nothing else, so that importing `dr` costs nothing. What lives where is told by each
package's own docstring; which may import which is held by the contracts in pyproject.toml (`make check`).
"""

__version__ = "0.1.0"
