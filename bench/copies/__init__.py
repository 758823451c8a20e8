"""How well, and at what price, copies are found: attacks, peers, sizes, calibration, scenes."""
