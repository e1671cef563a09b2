"""Pure parts of the lab: what needs neither root nor a lab."""
