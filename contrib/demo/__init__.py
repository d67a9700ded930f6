"""What the demonstration and the tests run beside nftban."""
