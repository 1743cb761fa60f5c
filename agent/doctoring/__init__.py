"""What else on a node may take packets past Deflector, or Deflector's elsewhere; and a pair that proves it works."""
