"""One KVM host through libvirt: what it has, what runs on it, starting, stopping, testifying, and the permit hook.

`hypervisor.LibvirtHypervisor` and `gate.LibvirtGate` are the way in; the other modules are their rooms.
Not here: when to start or stop anything, seals, epochs, tickets (the agent), health that needs no libvirt (../health).
"""
