"""Maps where other packages expect them; a package is imported when its module here is used."""
