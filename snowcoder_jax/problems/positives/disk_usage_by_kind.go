// Which kinds of file fill the disk?
//
// Given the names and sizes of files, add up the sizes by file extension, in lower
// case, and report the largest kinds, at most a given number of them. Names without
// an extension and hidden files such as ".profile" count as "(none)". Kinds of equal
// size are listed in alphabetical order.
package main

import (
	"fmt"
	"path"
	"reflect"
	"sort"
	"strings"
)

// File is one entry of a disk listing.
type File struct {
	Name string
	Size int64
}

// Usage is the total size of all files of one kind.
type Usage struct {
	Kind string
	Size int64
}

// kindOf returns the lower-case extension of a file name without the dot.
func kindOf(name string) string {
	base := path.Base(name)
	// A dot in first place marks a hidden file.
	if dot := strings.LastIndex(base, "."); dot > 0 {
		return strings.ToLower(base[dot+1:])
	}
	return "(none)"
}

// Largest returns the largest kinds in falling order, at most limit of them.
func Largest(files []File, limit int) []Usage {
	sizes := make(map[string]int64)
	for _, file := range files {
		sizes[kindOf(file.Name)] += file.Size
	}
	usages := make([]Usage, 0, len(sizes))
	for kind, size := range sizes {
		usages = append(usages, Usage{kind, size})
	}
	// The order of a map is random, so ties need a rule of their own.
	sort.Slice(usages, func(i, j int) bool {
		a, b := usages[i], usages[j]
		return a.Size > b.Size || a.Size == b.Size && a.Kind < b.Kind
	})
	if len(usages) > limit {
		usages = usages[:limit]
	}
	return usages
}

func main() {
	files := []File{
		{"trip/1.JPG", 400}, {"trip/2.jpg", 300}, {"notes.txt", 90},
		{".profile", 10}, {"Makefile", 85}, {"film.mp4", 700},
	}
	want := []Usage{{"jpg", 700}, {"mp4", 700}, {"(none)", 95}}
	if got := Largest(files, 3); !reflect.DeepEqual(got, want) {
		panic(fmt.Sprintf("got %v, want %v", got, want))
	}
	fmt.Println("largest kinds:", want)
}
