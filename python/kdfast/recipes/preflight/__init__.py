"""`kdfast preflight`: everything that must hold before a teacher is paid, looked at one by one, in a minute."""
