"""The tuned model: injection of a method into a backbone, and the tuned file."""
