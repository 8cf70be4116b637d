"""Images whose labels are the names of folders, and the rules by which files of a folder are found."""
