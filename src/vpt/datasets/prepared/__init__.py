"""Writers of prepared folders: images, list files, and at the end `prepared.json`."""
