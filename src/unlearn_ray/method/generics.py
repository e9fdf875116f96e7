"""Words that generic counterparts are drawn from: common, short, at home in any English story.

Written for this project from general knowledge of English. Sets are tuples in no meaningful order: counterparts.py
ranks and shuffles them.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MASCULINE_NAMES = _words(
    """James John Robert Michael William David Richard Joseph Thomas Charles Christopher Daniel Matthew Anthony Andrew
    Kenneth Brian George Timothy Edward Jeffrey Jacob Gary Nicholas Eric Jonathan Stephen Steven Larry Benjamin
    Samuel Gregory Alexander Frank Patrick Raymond Jack Dennis Jerry Aaron Adam Nathan Henry Douglas Peter Walter
    Harold Keith Roger Noah Gerald Carl Terry Arthur Lawrence Joe Billy Bruce Albert Gabriel Alan Roy Ralph Eugene
    Vincent Louis Philip Johnny Simon Oliver Luke Hugh Neil Colin Leonard Victor Stanley Francis Frederick Ernest
    Edwin Norman Martin Alfred Theodore Lewis Clifford Felix Oscar Leo Max Owen Ian Derek Malcolm Trevor Nigel
    Stuart Barry Clive Geoffrey Desmond Rupert Hector Edgar Edmund Cecil Cyril Basil Ben Sam Tom Tim Jim Bob Bill
    Dick Harry Charlie Ned Ted Fred Pat Joel Evan Seth Caleb Isaac Abel Amos Silas Julian Adrian Gavin Glen Ivan
    Kurt Lance Leon Maurice Nathaniel Quentin Reginald Rodney Toby Sidney Bernard Brett Dwight Gilbert Herbert
    Herman Hubert Humphrey Jasper Jimmy Josh Nelson Roland Rory Reuben Rufus Sebastian Terence Wilbur Wilfred Phil
    Pete Mike Dan Dave Rob Steve Ron Ken Jeff Chris Nick Tony Andy Alex Eddie Danny Tommy Sammy Archie Alfie Freddie
    Jake Liam Karl Lars Willie Bobby Hugo Ethan Dylan Marcus Conrad Horace Howard Donald Paul Mark Justin Kevin
    Lionel Bertram Ambrose Augustus Clement Godfrey Gregor Jerome Lambert Laurence Leopold Matthias Morgan Moses
    Randolph Robin Roderick Ronald Solomon Stephan Sylvester Tobias Valentine Virgil Wesley Willard Zachary Elijah
    Josiah Jeremiah Peregrine Kit Gil"""
)
FEMININE_NAMES = _words(
    """Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Lisa Nancy Betty Sandra Margaret Emily
    Donna Michelle Carol Amanda Melissa Deborah Stephanie Rebecca Sharon Laura Cynthia Dorothy Amy Kathleen Angela
    Shirley Emma Brenda Pamela Nicole Anna Samantha Katherine Christine Rachel Carolyn Janet Maria Olivia Heather
    Helen Catherine Diane Julie Victoria Joyce Lauren Kelly Christina Ruth Joan Judith Evelyn Hannah Andrea Megan
    Cheryl Jacqueline Teresa Abigail Sophia Martha Sara Janice Kathryn Ann Isabella Judy Charlotte Julia Alice
    Denise Frances Danielle Marilyn Natalie Beverly Diana Theresa Doris Lucy Jane Anne Ellen Eleanor Clara Nora Cora
    Ada Ida Eva Ella Edith Ethel Agnes Mabel Maud Florence Harriet Henrietta Louisa Louise Caroline Georgiana Lydia
    Kitty Fanny Marianne Elinor Matilda Amelia Augusta Penelope Philippa Priscilla Rosalind Sylvia Vera Winifred
    Wendy Molly Polly Peggy Sally Jenny Annie Nellie Maggie Becky Betsy Bella Tess Tessa Rosie Stella Marion Miriam
    Naomi Esther Leah Lois Eunice Phoebe Chloe Zoe Daphne Cordelia Celia Cecilia Bridget Deirdre Fiona Gillian Gwen
    Hilary Imogen Ingrid Irene Isabel Jill Josephine Kate Kathy Kirsten Lena Leonora Lillian Lorraine Lynn Madeline
    Maisie Marcia Margot Marie Marjorie Maureen Mildred Minnie Miranda Monica Muriel Myra Nadia Nina Norma Olga
    Paula Phyllis Rita Roberta Rosa Rosemary Sabrina Selina Serena Sheila Simone Sonia Sophie Susanna Tamara Thelma
    Tina Trudy Ursula Valerie Vanessa Veronica Vivian Yvonne Eliza Lizzie Lizzy Nell Dinah Erica Gail Greta Heidi
    Lara Lucille Violet Adelaide Alison Antonia Beatrice Bertha Bessie Charity Constance Dora
    Elsie Flora Geraldine Gertrude Gloria Hester Jean Joanna Lavinia Lilian Lucinda Mavis Millicent Patience
    Rowena Tabitha Viola Alma Beth Carla Connie Erin Fay Jemima Letitia Lottie Meg Nan Rhoda Roxana Tilda
    Winnie Isobel Sophy"""
)
SURNAMES = _words(
    """Norton Holt Reed Cooper Morris Bailey Parker Collins Stewart Murphy Rogers Peterson Sanders Henderson Coleman
    Jenkins Powell Patterson Hughes Simmons Bryant Griffin Hayes Myers Hamilton Graham Sullivan Wallace Reynolds
    Ellis Harrison Gibson Marshall Webb Simpson Stevens Tucker Porter Hicks Crawford Boyd Kennedy Dixon Gordon Shaw
    Holmes Robertson Daniels Palmer Nichols Ferguson Hawkins Dunn Perkins Hudson Spencer Gardner Stephens Matthews
    Arnold Wagner Willis Watkins Olson Carroll Duncan Snyder Cunningham Bradley Andrews Harper Riley Armstrong
    Elliott Sims Peters Kelley Lawson Carr Wheeler Chapman Montgomery Richards Williamson Johnston Meyer Howell
    Morrison Hansen Harvey Burton Jacobs Reid Lynch Garrett Welch Larson Burke Hanson Bowman Fowler Carlson Pearson
    Douglas Fleming Jensen Davidson Hopkins Walters Curtis Caldwell Lowe Jennings Barnett Horton Shelton Barrett
    Sutton Chambers Lambert Fletcher Watts Bates Rhodes Newman Haynes Dawson Benson Norris Vaughn Schultz Lloyd
    Griffith Dalton Thornton Bowen Barton Doyle Poole Hogan Goodman Conner Cobb Walton Sherman Parsons Baldwin Moran
    Yates Logan Hartley Whitaker Whitney Ashton Langley Sheldon Winslow Clayton Hilton Burgess Chandler Easton Flynn
    Gould Hobbs Hobson Hooper Kemp Kerr Latham Manning Merrill Monroe Nolan Osborne Pratt Quinn Rowe Skinner Slater
    Sloan Stokes Talbot Tilley Underwood Vance Vincent Walsh Webster Wilcox Wilkins Winters Wyatt Abbott Aldridge
    Atkins Ballard Barlow Bartlett Beck Blair Booth Boyle Bradford Bradshaw Brennan Briggs Brock Burnett Carver
    Clarke Clements Cline Conway Copeland Corbett Cowan Coyle Crosby Dickson Dodson Donovan Duffy Dyer Eaton Emerson
    Erickson Everett Farley Farrell Faulkner Fitch Floyd Forbes Gallagher Gentry Gilmore Goodwin Hammond Hancock
    Harding Harmon Hatfield Hendricks Hensley Hewitt Higgins Hodge Holden Hollis Howe Huff Hurley Hutchinson Ingram
    Irwin Jarvis Keller Kirby Knox Levy Lindsey Maddox Mathis Maxwell Mayer Mercer Middleton Mooney Mosley Mullins
    Nixon Patton Phelps Pittman Pruitt Rankin Riggs Rollins Rowland Salter Shannon Sheppard Singleton Stafford
    Stanton Strickland Sweeney Sykes Tate Thorpe Tyson Vaughan Wiggins Wiley Wooten Ackerman Addison Alcott Bancroft
    Beaumont Bellamy Birch Blackwell Bramwell Brewster Bromley Buckley Cartwright Chadwick Clifton Colby Cosgrove
    Crowley Dalby Denham Dobson Drummond Dudley Dunbar Egerton Fairbank Fenton Fielding Garland Goddard Granger
    Haddon Halsey Harlow Haskell Hathaway Holloway Hubbard Huxley Jessop Kendall Kingsley Lister Lockwood Lomax
    Ludlow Lytton Marlow Marsden Mayhew Milner Mortimer Nettleton Newell Oakley Ogden Paget Pemberton Pickering
    Prescott Radcliffe Ramsey Redmond Ridley Rushton Sadler Seaton Selby Shelby Shipley Stratton Sumner Thatcher
    Thurston Townsend Tremaine Trent Turnbull Tuttle Upton Wainwright Wakefield Walpole Warwick Weston Whitlock
    Wickham Winthrop Wolcott Woodward Wyndham Yardley"""
)
PLACES = _words(
    """Bedford Oxford Lincoln Lancaster Durham Norwich Preston Bolton Burnley Derby Leeds Halifax Barnsley Rotherham
    Doncaster Wakefield Huddersfield Bradford Leicester Rugby Coventry Stafford Dudley Hereford Gloucester Swindon
    Luton Watford Ipswich Colchester Chelmsford Southend Maidstone Dover Folkestone Hastings Eastbourne Worthing
    Guildford Crawley Horsham Winchester Salisbury Dorchester Yeovil Taunton Exeter Plymouth Torquay Truro Penzance
    Swansea Newport Wrexham Bangor Chester Warrington Wigan Blackburn Blackpool Kendal Carlisle Penrith Hexham
    Darlington Stockton Whitby Ripon Harrogate Selby Goole Grimsby Boston Grantham Newark Mansfield Buxton Matlock
    Nantwich Crewe Shrewsbury Ludlow Malvern Evesham Stratford Warwick Banbury Abingdon Newbury Andover Lewes
    Ashford Canterbury Margate Croydon Epsom Dorking Reigate Hertford Cambridge Thetford Cromer Lowestoft Sudbury
    Dundee Perth Stirling Falkirk Paisley Dumfries Inverness Aberdeen Cork Limerick Galway Sligo Wexford Kilkenny
    Belfast Derry Newry Portland Salem Albany Syracuse Rochester Hartford Concord Burlington Savannah Dayton Akron
    Cleveland Milwaukee Toronto Ottawa Melbourne Brisbane Adelaide Auckland Wellington Dunedin Bergen Utrecht Delft
    Ghent Lyon Dijon Nantes Siena Parma Verona Turin Basel Bremen Oldham Bury Redditch Kidderminster Chesterfield
    Scunthorpe Morpeth Alnwick Keswick Ambleside Skipton Settle Otley Ilkley Beverley Bridlington Louth Sleaford
    Spalding Stamford Corby Kettering Daventry Bicester Witney Cirencester Stroud Tewkesbury Ledbury Leominster
    Bridgnorth Oswestry Tiverton Barnstaple Bideford Bodmin Falmouth Wareham Weymouth Basingstoke Farnham
    Petersfield Midhurst Tonbridge Sevenoaks Gravesend Braintree Harwich Felixstowe Newmarket Huntingdon Bournemouth
    Southport Stockport Rochdale Wolverhampton"""
)
CREATURES = _words(
    """Badger Otter Fox Hedgehog Squirrel Weasel Stoat Mole Beaver Raccoon Skunk Wolf Bear Lynx Panther Leopard Cheetah
    Jaguar Tiger Zebra Giraffe Camel Llama Donkey Mule Pony Goat Ram Lamb Deer Elk Moose Buffalo Bison Antelope Gazelle
    Kangaroo Koala Wombat Monkey Gorilla Baboon Lemur Sloth Hamster Gerbil Ferret Hare Rabbit Rat Bat Owl Hawk Falcon
    Eagle Kestrel Vulture Raven Crow Magpie Jay Robin Sparrow Finch Wren Thrush Swallow Starling Heron Stork Crane
    Pelican Penguin Puffin Gull Swan Goose Turkey Peacock Pheasant Quail Partridge Parrot Cuckoo Woodpecker Kingfisher
    Ostrich Emu Frog Toad Newt Lizard Gecko Iguana Turtle Tortoise Snake Cobra Viper Python Crocodile Alligator Salmon
    Trout Pike Eel Carp Herring Cod Shark Dolphin Walrus Seal Octopus Squid Crab Lobster Shrimp Oyster Snail Slug
    Spider Beetle Cricket Moth Butterfly Wasp Hornet Ant Hippo Rhino Elephant Lion Coyote Jackal Hyena Meerkat Mongoose
    Platypus Porcupine Armadillo Dragonfly Ladybird Greyhound Spaniel Terrier Poodle Foxhound Bulldog"""
)
ROLES = _words(
    """Baker Miller Tailor Cobbler Barber Plumber Painter Weaver Tinker Gardener Butcher Grocer Carpenter Mason Builder
    Saddler Sailor Pilot Porter Waiter Tutor Clerk Printer Singer Dancer Drummer
    Fiddler Piper Juggler Clown Hunter Trapper Fisherman Ranger Shepherd Soldier Archer Gunner Rider Jockey
    Warden Watchman Fireman Postman Milkman Glazier Joiner Potter Draper Dyer Spinner Tanner Locksmith
    Goldsmith Surveyor Scholar Chemist Surgeon Librarian Messenger Courier Carrier Peddler
    Trader Merchant Innkeeper Brewer"""
)
OBJECTS = _words(
    """Lantern Compass Basket Kettle Ladder Bucket Barrel Hammer Beacon Banner Button Candle Carpet Cushion Drum
    Feather Fiddle Goblet Helmet Jacket Locket Medal Mirror Needle Paddle Pillow Ribbon Saddle Shield Trumpet Violin
    Wagon Whistle Pebble Marble Pencil Parcel Blanket Bracket Bonnet Bottle Cabinet Chisel Cradle Crystal Curtain
    Emerald Fountain Furnace Garland Guitar Hammock Harness Harp Hatchet Kite Knapsack Ledger Magnet Mallet Mitten
    Napkin Necklace Notebook Orchard Padlock Parasol Pendant Piano Pillar Pistol Pitcher Pulley Puppet Purse Quilt
    Racket Rocket Sapphire Satchel Scarf Sickle Slipper Sponge Statue Stove Sweater Tambourine Teapot Telescope
    Thimble Trolley Turnip Umbrella Vase Wallet Wreath Bicycle Biscuit Bracelet Brooch Cucumber Domino Flute Hinge
    Inkwell Jigsaw"""
)
MASCULINE_RANKS = _words(
    "Sultan Baron Duke Earl Prince Emperor Marquis Viscount King Lord Squire Count Rajah Abbot Knight Sheikh"
)
FEMININE_RANKS = _words(
    "Baroness Countess Princess Empress Duchess Queen Viscountess Marchioness Abbess Lady Sultana Mistress Dame"
)
NEUTRAL_RANKS = _words(
    """Mayor Governor Senator Chancellor Ambassador Marshal Admiral Commodore Sergeant Major Colonel General Consul
    Sheriff Magistrate Bishop Dean Provost Minister Treasurer Director Chairman Captain Professor Inspector Lieutenant
    Corporal"""
)
ADJECTIVES = _words(
    """Brown Grey Silver Golden Crimson Scarlet Purple Yellow Orange Blue Copper Amber Ivory Spotted Dusty Sleepy Sunny
    Rusty Speckled Sandy Mossy Frosty Misty Gentle Quiet Merry Jolly Clever Lucky Lonely Lazy Hungry Thirsty Noble
    Ancient Royal Wooden Iron Bronze Pale Striped Painted Twisted Tiny Slender Sturdy Gloomy Breezy Dizzy Fuzzy
    Shaggy Bearded Crested Hooded Ragged Restless Drowsy Cheerful Bashful Nimble Plump Lanky Freckled"""
)
BUILDINGS = _words(
    """Vicarage Chapel Mill Tannery Forge Brewery Bakery Stables Granary Barracks Quarry Pavilion Library Museum
    Gallery Academy Hospital Warehouse Factory Boathouse Lighthouse Rectory Orangery Conservatory Foundry Distillery
    Nursery Gymnasium Cinema Stadium"""
)
# parts of coined but English-sounding names, for the day a list above is used up
TOWN_BEGINNINGS = _words(
    """Ash Elm Oak Thorn Brad Har Wes Mil Stan Wood Fern Hazel Green Lang Shel Whit Win Nor Sut Kel Mar Pen Rad Sten
    Thur Ut Wal Bram Clay Dun Ever Farn Gar Hol Ing Kirk Lin Mor Net Ox Port Quen Red Sax Tan Up Ven War Yar Bal Cal
    Den"""
)
TOWN_ENDINGS = _words("ford ton ham ley worth field well combe by stead hurst bourne wick gate more dale cote borough")


def gender_of(name: str) -> str:
    """ "m" or "f" for a given name that the lists have once, else ""."""
    masculine, feminine = name in MASCULINE_NAMES, name in FEMININE_NAMES
    return "" if masculine == feminine else "m" if masculine else "f"
