/**
 * Quote the postage for a shipment.
 *
 * A post office accepts three kinds of shipment. A letter costs 90 cents up to 50
 * grams and 160 cents above. A box costs 400 cents plus 3 cents for every litre
 * begun. A tube costs 350 cents, plus 200 if it is longer than 100 centimetres.
 * Shipments abroad cost twice as much. Model the kinds so that the compiler
 * complains if a kind is added later and the price calculation is not extended.
 */

type Letter = { kind: 'letter'; grams: number };
type Box = { kind: 'box'; widthCm: number; heightCm: number; depthCm: number };
type Tube = { kind: 'tube'; lengthCm: number };

type Shipment = Letter | Box | Tube;

const CUBIC_CM_PER_LITRE = 1000;

/** Fails to compile when a kind of shipment is not handled before the call. */
function assertNever(value: never): never {
  throw new Error(`unknown shipment: ${JSON.stringify(value)}`);
}

/** Returns the inland postage in cents. */
function inlandPostage(shipment: Shipment): number {
  switch (shipment.kind) {
    case 'letter':
      return shipment.grams <= 50 ? 90 : 160;
    case 'box': {
      const volume = shipment.widthCm * shipment.heightCm * shipment.depthCm;
      return 400 + 3 * Math.ceil(volume / CUBIC_CM_PER_LITRE);
    }
    case 'tube':
      return 350 + (shipment.lengthCm > 100 ? 200 : 0);
    default:
      return assertNever(shipment);
  }
}

/** Returns the postage in cents. */
export function quote(shipment: Shipment, abroad = false): number {
  return inlandPostage(shipment) * (abroad ? 2 : 1);
}

const checks: Array<[number, number]> = [
  [quote({ kind: 'letter', grams: 50 }), 90],
  [quote({ kind: 'letter', grams: 51 }, true), 320],
  [quote({ kind: 'box', widthCm: 20, heightCm: 10, depthCm: 11 }), 409],
  [quote({ kind: 'tube', lengthCm: 100 }), 350],
  [quote({ kind: 'tube', lengthCm: 101 }), 550],
];
for (const [actual, expected] of checks) {
  if (actual !== expected) throw new Error(`expected ${expected}, got ${actual}`);
}
console.log('all quotes are right');
