"""How the rooms of the house are built, one module for each.  Concrete classes are named only here."""
