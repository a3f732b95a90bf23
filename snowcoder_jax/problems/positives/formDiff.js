/**
 * Describe what a user changed in a form.
 *
 * An audit log should say in words what changed between the stored version of a
 * form and the version just submitted. Both are plain objects from field names to
 * strings, numbers, booleans or arrays of those. Produce one sentence per changed
 * field, in alphabetical order of the fields. A field that is missing, null or the
 * empty string counts as empty. For arrays, name the entries added and removed.
 */
'use strict';

const assert = require('node:assert');

const isEmpty = (value) => value === undefined || value === null || value === '';

/** Quotes text and lists, leaves numbers and booleans bare. */
const show = (value) => JSON.stringify(value);

/** Describes the change of one array field; an empty string means no change. */
function describeList(before, after) {
  const added = after.filter((entry) => !before.includes(entry));
  const removed = before.filter((entry) => !after.includes(entry));
  const parts = [];
  if (added.length > 0) parts.push(`added ${added.map(show).join(', ')}`);
  if (removed.length > 0) parts.push(`removed ${removed.map(show).join(', ')}`);
  return parts.join(' and ');
}

/** Describes the change of one field; an empty string means no change. */
function describeChange(before, after) {
  if (Array.isArray(before) && Array.isArray(after)) {
    return describeList(before, after);
  }
  if (isEmpty(before) && isEmpty(after)) return '';
  if (isEmpty(before)) return `set to ${show(after)}`;
  if (isEmpty(after)) return `cleared, was ${show(before)}`;
  return before === after ? '' : `changed from ${show(before)} to ${show(after)}`;
}

/** Returns one sentence per changed field. */
function formDiff(before, after) {
  // The set joins both key lists, so fields that came or went are seen as well.
  const fields = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return fields
    .sort()
    .map((field) => [field, describeChange(before[field], after[field])])
    .filter(([, change]) => change !== '')
    .map(([field, change]) => `${field}: ${change}`);
}

assert.deepStrictEqual(
  formDiff(
    { name: 'Ada', phone: '', tags: ['new', 'vip'], age: 36 },
    { name: 'Ada', tags: ['vip', 'paid'], age: 37, city: 'Turin' },
  ),
  [
    'age: changed from 36 to 37',
    'city: set to "Turin"',
    'tags: added "paid" and removed "new"',
  ],
);
assert.deepStrictEqual(formDiff({ note: 'x' }, {}), ['note: cleared, was "x"']);
console.log('form differences described as expected');
