"""The commands of `sockpid-gen`, by what they are about, and the manual pages of both programs."""
