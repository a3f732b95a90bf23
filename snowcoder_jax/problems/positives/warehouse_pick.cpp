// Put a warehouse picking list into walking order.
//
// The shelves of a warehouse stand along parallel aisles. A picker walks up the
// first aisle that has something on the list, down the next such aisle, up the one
// after that, and so on, skipping aisles without items. Given the places of the
// items as (aisle, shelf), sort them into the order in which the picker passes
// them. Items on the same shelf keep the order in which they were ordered.

#include <algorithm>
#include <cassert>
#include <iostream>
#include <map>
#include <string>
#include <vector>

struct Item {
    std::string name;
    int aisle;
    int shelf;
};

// Returns the items in walking order.
std::vector<Item> walkingOrder(const std::vector<Item>& items) {
    // std::map visits the aisles in increasing order, and only those in use.
    std::map<int, std::vector<Item>> byAisle;
    for (const Item& item : items) {
        byAisle[item.aisle].push_back(item);
    }

    std::vector<Item> order;
    order.reserve(items.size());
    bool up = true;
    for (auto& [aisle, found] : byAisle) {
        // Reversing a list sorted upwards would also reverse the items on one
        // shelf, hence a stable sort for either direction.
        std::stable_sort(found.begin(), found.end(),
                         [up](const Item& left, const Item& right) {
                             return up ? left.shelf < right.shelf
                                       : left.shelf > right.shelf;
                         });
        order.insert(order.end(), found.begin(), found.end());
        up = !up;
    }
    return order;
}

int main() {
    const std::vector<Item> orderList = {
        {"glue", 4, 2},  {"nails", 1, 9}, {"paint", 4, 7},
        {"brush", 4, 7}, {"saw", 1, 3},   {"tape", 6, 5},
    };

    std::string names;
    for (const Item& item : walkingOrder(orderList)) {
        names += item.name + " ";
    }
    assert(names == "saw nails paint brush glue tape ");
    assert(walkingOrder({}).empty());
    std::cout << names << '\n';
}
