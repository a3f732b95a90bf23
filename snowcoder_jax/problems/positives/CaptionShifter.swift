// Move the captions of a film.
//
// A film was cut, and its captions must be moved by some milliseconds, forwards or
// backwards. A caption that would end at or before the beginning of the film is
// dropped; one that would begin before it is shortened to begin at zero. Then the
// captions are numbered again from 1. Print each caption as its number, its times in
// the form 00:01:02,345 and its text.

struct Caption: Equatable {
    var start: Int  // milliseconds
    var end: Int
    var text: String
}

/// Returns the captions moved by `offset` milliseconds.
func shifted(_ captions: [Caption], by offset: Int) -> [Caption] {
    captions.compactMap { caption in
        let end = caption.end + offset
        guard end > 0 else { return nil }
        return Caption(start: max(0, caption.start + offset), end: end, text: caption.text)
    }
}

/// Pads a number with zeros on the left.
private func padded(_ number: Int, to width: Int) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(0, width - digits.count)) + digits
}

/// Writes milliseconds as hours, minutes, seconds and milliseconds.
func timeCode(_ milliseconds: Int) -> String {
    let (seconds, rest) = milliseconds.quotientAndRemainder(dividingBy: 1000)
    let clock = [seconds / 3600, seconds / 60 % 60, seconds % 60]
    return clock.map { padded($0, to: 2) }.joined(separator: ":") + "," + padded(rest, to: 3)
}

/// Returns the text of a caption file, with numbers counted from 1.
func captionFile(_ captions: [Caption]) -> String {
    captions.enumerated().map { index, caption in
        """
        \(index + 1)
        \(timeCode(caption.start)) --> \(timeCode(caption.end))
        \(caption.text)

        """
    }.joined(separator: "\n")
}

let film = [
    Caption(start: 500, end: 1_800, text: "Good morning."),
    Caption(start: 1_900, end: 4_250, text: "Who left the gate open?"),
    Caption(start: 3_661_007, end: 3_662_000, text: "It was the goat."),
]
let moved = shifted(film, by: -2_000)
precondition(moved.count == 2)
precondition(moved[0] == Caption(start: 0, end: 2_250, text: "Who left the gate open?"))
precondition(timeCode(film[2].start) == "01:01:01,007")
precondition(shifted(film, by: 10)[0].start == 510)
print(captionFile(moved))
