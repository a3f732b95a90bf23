<?php

/**
 * Give every article of a web site a readable address of its own.
 *
 * The address part ("slug") comes from the title: lower case, every run of other
 * characters than ASCII letters and digits becomes one hyphen, none at the ends. A
 * title without any usable character becomes "untitled". Two articles must never
 * share a slug: the second one gets the suffix "-2", the third "-3", and so on, and
 * a suffixed slug must not collide with a title that happens to end that way.
 */

declare(strict_types=1);

final class SlugRegistry
{
    /** @var array<string, true> Slugs in use; the keys make a set. */
    private array $taken = [];

    /** Reserves and returns a new slug for the title. */
    public function register(string $title): string
    {
        $base = self::slugify($title);
        $slug = $base;
        // Trying candidates one by one, instead of counting titles, is what
        // avoids a collision with a title such as "Part 2".
        for ($number = 2; isset($this->taken[$slug]); $number++) {
            $slug = "{$base}-{$number}";
        }
        $this->taken[$slug] = true;

        return $slug;
    }

    private static function slugify(string $title): string
    {
        $hyphenated = preg_replace('/[^a-z0-9]+/', '-', strtolower($title));
        $slug = trim($hyphenated, '-');

        return $slug === '' ? 'untitled' : $slug;
    }
}

function expectSame(string $expected, string $actual): void
{
    if ($expected !== $actual) {
        throw new RuntimeException("expected {$expected}, got {$actual}");
    }
}

$registry = new SlugRegistry();
expectSame('our-garden-part-2', $registry->register('Our Garden: Part 2'));
expectSame('our-garden-part', $registry->register('Our garden, part'));
expectSame('our-garden-part-3', $registry->register(' Our Garden (part)! '));
expectSame('untitled', $registry->register('???'));
expectSame('untitled-2', $registry->register(''));

echo "all slugs are unique\n";
