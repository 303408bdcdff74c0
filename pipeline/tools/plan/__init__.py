"""What a run of given params would take, told without training anything."""
