"""What goes into the one file that is deployed, and the executable for hosts without Python."""
