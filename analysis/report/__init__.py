"""What is shown in which order, the page that shows it, and which runs its numbers come from."""
