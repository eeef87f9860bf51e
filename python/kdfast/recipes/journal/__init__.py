"""`kdfast journal`: what a teacher was asked, what it answered and cost; copies; the full check. No torch in here."""
