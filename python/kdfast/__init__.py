"""kdfast: distil a tool-calling language model into a small student that is fast on the device by construction."""
