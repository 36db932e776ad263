"""What is true, and the words for it. Imports none of our other packages."""
