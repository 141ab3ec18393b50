"""What a search leaves behind: records, the tables made from them, and the winner's folder."""
