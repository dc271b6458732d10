"""What goes over the wire: request models that validate, and answers as the documentation shows them."""
