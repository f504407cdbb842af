"""Server-rendered pages for people: escaped, without scripts inside, usable by keyboard."""
