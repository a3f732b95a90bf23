/// Choose black or white text for a coloured label.
///
/// Users pick any background colour for a label, written as `#rrggbb`. The text on it
/// must stay readable, so compare both candidates by contrast ratio, which follows
/// from the relative luminance L of two colours, as defined for web content:
/// (lighter L + 0.05) / (darker L + 0.05). Return the text colour with the higher
/// ratio. Reject strings that are not colours.
library;

import 'dart:math';

const black = '#000000';
const white = '#ffffff';

final _colourPattern = RegExp(r'^#[0-9a-fA-F]{6}$');

/// Undoes the gamma encoding of one colour channel from 0 to 255.
double _linear(int channel) {
  final value = channel / 255;
  return value <= 0.04045
      ? value / 12.92
      : pow((value + 0.055) / 1.055, 2.4).toDouble();
}

/// Returns the relative luminance of a colour, from 0 for black to 1 for white.
double luminance(String colour) {
  if (!_colourPattern.hasMatch(colour)) {
    throw FormatException('not a colour', colour);
  }
  final rgb = int.parse(colour.substring(1), radix: 16);
  // The eye is most sensitive to green and least to blue, hence the weights.
  return 0.2126 * _linear(rgb >> 16) +
      0.7152 * _linear(rgb >> 8 & 0xff) +
      0.0722 * _linear(rgb & 0xff);
}

/// Returns the contrast ratio of two colours, from 1 (equal) to 21.
double contrast(String first, String second) {
  final a = luminance(first), b = luminance(second);
  return (max(a, b) + 0.05) / (min(a, b) + 0.05);
}

/// Returns the more readable text colour for a background.
String textColourFor(String background) =>
    contrast(background, black) >= contrast(background, white) ? black : white;

void main() {
  final expected = {'#ffffff': black, '#00008b': white, '#FFD700': black};
  expected.forEach((background, text) {
    if (textColourFor(background) != text) {
      throw StateError('wrong text colour on $background');
    }
  });
  if ((contrast(black, white) - 21).abs() > 1e-9) {
    throw StateError('black on white must have a contrast of 21');
  }
  print('all labels are readable');
}
