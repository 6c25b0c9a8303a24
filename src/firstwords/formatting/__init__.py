"""From recognised words to text for people: numbers, punctuation and capitals, names that matter."""
