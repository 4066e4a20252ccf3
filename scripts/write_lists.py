"""Write down what `fedunlearn list` tells (fedunlearn/listed.json), after a change of what it follows from."""

from fedunlearn import listing

if __name__ == "__main__":
    listing.write()
