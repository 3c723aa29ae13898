"""How the parts of a service are built, one module for each.  Concrete classes are named only here."""
