"""Where cachecraft meets other systems, a module each; none is imported before it is asked for."""
