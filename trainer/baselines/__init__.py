"""Other ways to edit a picture by text, to compare with."""
