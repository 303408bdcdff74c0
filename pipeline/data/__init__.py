"""Reading what is trained and measured on: images, and the token cache."""
